"""What several parts keep things with: the connections to MongoDB and Redis and the one verdict on MongoDB's errors, migrations, group
commit, the circuit breaker, JSON files that people may edit, append-only segments, and the locks and owners of DATA_DIR.
"""
