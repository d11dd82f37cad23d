"""`python -m simulation [--digest] SEED [SEED …] [-a APPOINTMENT]`, in tests/faults with the project on the path."""

import argparse

from simulation.simulate import history, simulate

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("seeds", nargs="+", type=int)
arguments.add_argument("--digest", action="store_true", help="print the digest of each seed's log alone")
arguments.add_argument("-a", "--appointment", default="", help="tell of this appointment alone (first eight digits)")
given = arguments.parse_args()
for seed in given.seeds:
    run = simulate(seed)
    print(run.digest if given.digest else history(run, given.appointment))
