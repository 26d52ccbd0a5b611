"""Train on a Dask cluster, kill one of its workers meanwhile, and get the same model all the same.

python examples/dask_cluster.py [DATA.parquet TARGET]

needs the extra `dask`. On a real cluster give the address of its scheduler instead of a client.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import fastsoftmax

DIGITS = Path(__file__).parent / "data" / "digits-train.parquet"
OPTIONS = {"shards": 4, "solver": "lbfgs", "l2": 1e-3}


def digest(model: fastsoftmax.Model) -> str:
    """Return a digest of a model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def main(data: str, target: str) -> None:
    """Compare the model of this process with that of a cluster that loses a worker."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        sys.exit("this example needs Dask: pip install 'fastsoftmax[dask]'")
    here = digest(fastsoftmax.train(data, target, **OPTIONS))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))
        killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        there = digest(fastsoftmax.train(data, target, workers=client, **OPTIONS))
        killer.join()
    print(f"threads of this process: {here[:16]}")
    print(f"a cluster, one worker killed: {there[:16]}")
    print("the same model" if here == there else "other models!")
    sys.exit(here != there)


if __name__ == "__main__":
    main(*(sys.argv[1:] or (str(DIGITS), "digit")))
