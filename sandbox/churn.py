"""placeholder"""
from sandbox.mutate import Mutator


class Churn:
    def __init__(self, mutator: Mutator) -> None: ...
    def run(self, n, seed, kinds): return []
