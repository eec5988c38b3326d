"""Everything outside the process: PostgreSQL, Redis, the environment, the embedded servers."""
