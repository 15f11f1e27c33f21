"""A form field for files, with the checks of `receive_uploads` and their messages."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from jinja2.filters import do_filesizeformat
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException
from wtforms import MultipleFileField
from wtforms.validators import StopValidation
from wtforms.widgets import FileInput

from bulwark.uploads import receiving
from bulwark.uploads.models import Upload
from bulwark.web.body_limits import parse_size

# The user can choose another file. Anything else is not a matter of the form.
REFUSED = (400, 413, 415)

Model = TypeVar("Model", bound=Upload)


class UploadField(MultipleFileField, Generic[Model]):  # type: ignore[misc]
    """A field for the files that a model accepts.

    A file that the model doesn't accept makes the form invalid, and the message says
    why. To require a file, add WTForms' `InputRequired`.
    """

    def __init__(
        self,
        label: str,
        model: type[Model],
        validators: Sequence[Any] = (),
        description: str | None = None,
        render_kw: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Declare the field.

        Args:
            label: the label.
            model: your model, a subclass of `Upload`.
            validators: validators of WTForms.
            description: a hint; by default, what the model accepts.
            render_kw: HTML attributes.
            options: other options of a field of WTForms.
        """
        hint = _accepted(model) if description is None else description
        kept = {"accept": ",".join(model.accepts), **(render_kw or {})}
        super().__init__(
            label, list(validators), description=hint, render_kw=kept, **options
        )
        if model.max_files == 1:
            self.widget = FileInput()
        self.model = model
        self._checked: list[tuple[FileStorage, Model]] = []

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Keep the files that the user chose."""
        self.data = [f for f in valuelist if isinstance(f, FileStorage) and f.filename]
        self.raw_data = self.data

    def pre_validate(self, form: Any) -> None:
        """Check the files as `receive_uploads` does."""
        try:
            self._checked = receiving.check(self.data or [], self.model)
        except HTTPException as error:
            if error.code not in REFUSED:
                raise
            raise StopValidation(error.description or "Choose another file.") from error

    def store(self) -> list[Model]:
        """Store the files of a valid form, and return a new row for each.

        Add the rows to the session and commit; a file without a row is deleted later.
        """
        return receiving.store(self._checked)


def _accepted(model: type[Upload]) -> str:
    """Return the types and sizes that a model accepts, in words."""
    *others, last = (name.removeprefix(".").upper() for name in model.accepts)
    types = f"{', '.join(others)} or {last}" if others else last
    size = do_filesizeformat(parse_size(model.max_size))
    if model.max_files == 1:
        return f"{types}, at most {size}"
    return f"At most {model.max_files} files: {types}, at most {size} each"
