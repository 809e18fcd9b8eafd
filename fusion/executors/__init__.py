"""Where work runs: executors (a plug-in package), which run a function on many items in other processes."""
