"""One job at this stage, and the thread that runs all of them."""
