"""Workers tell how their commands ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATUSES = ("succeeded", "rejected", "failed", "expired")


def upgrade() -> None:
    for status in _STATUSES:
        op.add_column("workers", sa.Column(status, sa.BigInteger(), nullable=False, server_default="0"))
