"""Likes: a column that the version before does without."""

import sqlalchemy as sa
from alembic import op

revision = "likes"
down_revision = "posts"


def upgrade():
    op.add_column("post", sa.Column("likes", sa.Integer, nullable=False, server_default="0"))
