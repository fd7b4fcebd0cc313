"""Likes: a column that the version before does without."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade():
    op.add_column("post", sa.Column("likes", sa.Integer, nullable=False, server_default="0"))
