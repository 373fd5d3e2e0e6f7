"""``python -m ctl`` is ``ctl``."""

from ctl.main import main

main()
