"""Every system of the papers in its plainest form, to compare this project's speed with.

Written from the papers' equations for the same networks: each formula as printed, one tensor operation after
another, loops over parameters, Adam as it comes, one file at a time for UDiffSE. Results are the same up to
rounding (`systems.py` checks it). Only networks and settings are shared with diffse.
"""
