"""Commands that are no step of the chain: they read and write what the user names.

Each is a module with `HELP` (one line), `add_arguments(parser)` and `run(args, argv) -> exit code`. All of them
are imported for `diffse --help`, so they import what is heavy inside `run` only. `args.verb` is the command's
name.
"""

from diffse.commands import conclude, dashboard, data, import_checkpoint, listen, reproduce, score
from diffse.commands.project import recorded as recorded

COMMANDS = {
    "import": import_checkpoint,
    "conclude": conclude,
    "dashboard": dashboard,
    "data": data,
    "score": score,
    "listen": listen,
    "reproduce": reproduce,
}
