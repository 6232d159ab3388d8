"""The command line of a service whose processes may open few files, as after `ulimit -n 256`."""

from __future__ import annotations

import resource

from cli.main import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    main()
