"""Where a call goes: the health of deployments, and the order in which they are tried. Pure."""
