"""A stock room: names and how many of each.

>>> room = Room()
>>> room.put("bolt", 12)
>>> room.take("bolt", 5)
7
>>> room
<Room ...bolt...>
"""


class Room:
    def __init__(self):
        self.items = {}

    def put(self, name, count=1):
        """Adds to what is there.

        >>> room = Room()
        >>> room.put("nut")
        >>> room.put("nut", 2)
        >>> room.items["nut"]
        3
        """
        self.items[name] = count

    def take(self, name, count=1):
        """Removes from what is there, and says how much is left."""
        left = self.items.get(name, 0) - count
        if left < 0:
            raise ValueError("not enough of {}: {} missing".format(name, -left))
        self.items[name] = left
        return left

    def __repr__(self):
        return "<Room {}>".format(" ".join(sorted(self.items)))
