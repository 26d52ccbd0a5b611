"""Where rows come from: the only room that imports pyarrow."""
