"""Who carries tasks out: threads, processes, a cluster; no room here knows what a task does."""
