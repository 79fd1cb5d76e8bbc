"""One module a contender; `bench.agent` tells what it has to have."""
