"""A team's model and views for files, whose handling is the base's."""

from typing import Any

from flask import Blueprint, jsonify, render_template_string
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from wtforms import StringField
from wtforms.validators import InputRequired

from bulwark import (
    Form,
    Upload,
    UploadField,
    body_limit,
    db,
    receive_uploads,
    send_upload,
    signed_in,
)

blueprint = Blueprint("papers", __name__, url_prefix="/papers")


class Base(DeclarativeBase):
    """Apart from the service's models, which the migrations must match."""


class Paper(Upload, Base):
    """A file of a user."""

    __tablename__ = "papers_of_tests"
    accepts = (".csv", ".docx", ".jpg", ".pdf", ".png", ".txt", ".zip")
    max_size = "2 MB"
    max_files = 3

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int]

    def readable_by(self, user: Any) -> bool:
        """Let only the owner read it."""
        return bool(user.id == self.owner_id)


class Picture(Paper):
    """A picture that is rewritten; in the same table."""

    rewrite_images = True


class PaperForm(Form):
    """A form with a file."""

    title = StringField("Title", [InputRequired("Enter a title.")])
    paper = UploadField("Papers", Paper, [InputRequired("Choose a paper.")])


@blueprint.route("/form", methods=["GET", "POST"])
@signed_in
@body_limit("3 MB")
def add_with_form() -> ResponseReturnValue:
    form = PaperForm()
    if form.validate_on_submit():
        return _keep(form.paper.store())
    return render_template_string(
        '{% from "bulwark/forms.html" import render_form %}{{ render_form(form) }}',
        form=form,
    )


@blueprint.post("/pictures")
@signed_in
@body_limit("3 MB")
def add_picture() -> ResponseReturnValue:
    return _add(Picture)


@blueprint.post("/")
@signed_in
@body_limit("3 MB")
def add() -> ResponseReturnValue:
    return _add(Paper)


def _add(model: type[Paper]) -> ResponseReturnValue:
    return _keep(receive_uploads("paper", model))


def _keep(papers: list[Any]) -> ResponseReturnValue:
    for paper in papers:
        paper.owner_id = current_user.id
    db.session.add_all(papers)
    db.session.commit()
    return jsonify([{"id": paper.id, "filename": paper.filename} for paper in papers])


@blueprint.post("/failing")
@signed_in
@body_limit("3 MB")
def fail() -> ResponseReturnValue:
    receive_uploads("paper", Paper)
    db.session.rollback()
    return ""


@blueprint.get("/<int:paper_id>")
@signed_in
def one(paper_id: int) -> ResponseReturnValue:
    return send_upload(db.get_or_404(Paper, paper_id))
