"""What a contributor's machine can do, and what keeps it from doing more: one check a function, one subject a file."""

from declai.contributor.doctor.examination import examine
from declai.contributor.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
