"""What happens when: events in order, with or without times, read from a prompt, from a timeline or from a file.

"a, then b, meanwhile c" is events in order without times. "0-2s: a | 2-4s: b" is events with times, in seconds, frames
("[0:24] a") or percent of the video ("[25%:50%] a"); it is read strictly, and every error names the column. Anything
else is one event. An event that says "it" takes its words from the one ahead of it: `sentences`.
"""

from kinema.timeline.events import Event, Prompt, Timeline, Unit, plain
from kinema.timeline.file import from_file, given
from kinema.timeline.reading import is_timed

__all__ = ["Event", "Prompt", "Timeline", "Unit", "from_file", "given", "is_timed", "plain"]
