"""The project file: composed from the stages' options, read whole, and refused with every problem that it has.

`Project.load` reads `thriftune.yaml`, validates it, and checks what the file says against the world: the deadline
against the clock, the machine against the price table, the data against the folder. One message lists all problems,
each with its line, its key, what was found and what was expected.
"""

from thriftune.project.file import Budget, Compute, Objective, ProjectFile, Worth
from thriftune.project.project import PROJECT_FILE, STATE_FOLDER, Default, Project

__all__ = [
    "PROJECT_FILE",
    "STATE_FOLDER",
    "Budget",
    "Compute",
    "Default",
    "Objective",
    "Project",
    "ProjectFile",
    "Worth",
]
