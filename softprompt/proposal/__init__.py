"""A run that is proposed for a file of rows: its columns are looked at, a task is made, and both are written with comments.

`look` reads a file and says what its columns are for. `propose_run` makes the run of it, and knows what its rows are.
`written` gives the run file's text, `summary` what was seen. Nothing here asks a person or prints.
"""

from .looking import Seen, look
from .run import Proposal, propose_run
from .written import command_of, summary, written

__all__ = ["Proposal", "Seen", "command_of", "look", "propose_run", "summary", "written"]
