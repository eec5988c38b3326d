"""A command is set aside when workers died of it, and not when they only lost their lease."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("partitions", sa.Column("tried_by", ARRAY(sa.Text()), nullable=False, server_default="{}"))
    op.drop_column("partitions", "deaths_before")
