"""Grading: tasks times candidate patches to verdicts."""

from pytest_sandbox.grading.budget import Budget, OverBudget
from pytest_sandbox.grading.derivation import Derived
from pytest_sandbox.grading.grader import Grader
from pytest_sandbox.grading.model import Candidate, Task, Verdict
from pytest_sandbox.grading.predictions import read as read_predictions
from pytest_sandbox.grading.sources import find as find_tasks
from pytest_sandbox.grading.taskfile import read as read_task
from pytest_sandbox.grading.words import told

__all__ = [
    "Budget",
    "Candidate",
    "Derived",
    "Grader",
    "OverBudget",
    "Task",
    "Verdict",
    "find_tasks",
    "read_predictions",
    "read_task",
    "told",
]
