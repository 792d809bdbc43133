"""Leaves a sample of a cosmic-ray session's mutants: `python -m ... SESSION COUNT SEED`; 0: all."""

import random
import sqlite3
import sys
from contextlib import closing


def draw(session: str, count: int, seed: int) -> int:
    """Delete all mutants but `count`, chosen by `seed`; returns how many are left."""
    with closing(sqlite3.connect(session)) as database, database:
        jobs = sorted(job for (job,) in database.execute("select job_id from work_items"))
        kept = set(random.Random(seed).sample(jobs, min(count, len(jobs)))) if count else set(jobs)
        gone = [(job,) for job in jobs if job not in kept]
        database.executemany("delete from mutation_specs where job_id = ?", gone)
        database.executemany("delete from work_items where job_id = ?", gone)
    return len(kept)


if __name__ == "__main__":
    print(f"{draw(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))} mutants")
