"""Weights in grams."""

STEP = 500


def billable(grams: int, step: int = STEP) -> int:
    """The weight that is charged: whole steps, and any part of one counts as a whole."""
    if grams <= 0:
        raise ValueError(f"a parcel weighs something, not {grams} g")
    steps = max(round(grams / step), 1)
    return steps * step


def volumetric(length: int, width: int, height: int) -> int:
    """The weight that a box of these centimetres is taken for."""
    if min(length, width, height) <= 0:
        raise ValueError("a box has three sides")
    return length * width * height // 5
