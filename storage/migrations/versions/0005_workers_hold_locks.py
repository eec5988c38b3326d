"""Workers tell which sign of life they go by."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("by_locks", sa.Boolean(), nullable=False, server_default=sa.false()))
