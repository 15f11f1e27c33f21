"""FastAPI with the stack of full-stack-fastapi-template: `uvicorn fastapi_app:app`.

`python fastapi_app.py` makes the tables and prints the headers of a signed-in user.
"""

import json
import os
import uuid
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from fastapi.security import OAuth2PasswordBearer
from fastapi.templating import Jinja2Templates
from jinja2 import DictLoader, Environment
from pydantic import BaseModel, ValidationError
from shared import JINJA_PAGES, PLACES, REPORT, ROLES
from sqlmodel import Field, Relationship, Session, SQLModel, create_engine

KEY, ALGORITHM = "benchmark" * 8, "HS256"
HOST = os.environ["BENCHMARK_HOST"]
url = os.environ["BENCHMARK_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
engine = create_engine(url)
templates = Jinja2Templates(env=Environment(loader=DictLoader(JINJA_PAGES)))
bearer = OAuth2PasswordBearer(tokenUrl="/login/access-token")


class UserRole(SQLModel, table=True):
    user_id: uuid.UUID = Field(foreign_key="user.id", primary_key=True)
    role_id: int = Field(foreign_key="role.id", primary_key=True)


class Role(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)


class User(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    email: str = Field(unique=True, index=True)
    is_active: bool = True
    is_superuser: bool = False
    full_name: str | None = None
    hashed_password: str = ""
    roles: list[Role] = Relationship(link_model=UserRole)


class TokenPayload(BaseModel):
    sub: str | None = None


class Row(BaseModel):
    month: int
    cents: int


class Report(BaseModel):
    report: str
    rows: list[Row]


class Me(Report):
    email: str
    roles: list[str]


def get_session() -> Generator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
TokenDep = Annotated[str, Depends(bearer)]


def get_current_user(session: SessionDep, token: TokenDep) -> User:
    try:
        payload = TokenPayload(**jwt.decode(token, KEY, algorithms=[ALGORITHM]))
    except (jwt.InvalidTokenError, ValidationError):
        raise HTTPException(403, "Could not validate credentials") from None
    user = session.get(User, uuid.UUID(payload.sub))
    if not user:
        raise HTTPException(404, "User not found")
    if not user.is_active:
        raise HTTPException(400, "Inactive user")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
app = FastAPI()
app.add_middleware(
    CORSMiddleware,
    allow_origins=[f"https://{HOST}"],
    allow_credentials=True,
    allow_methods=["*"],
    allow_headers=["*"],
)


@app.get("/benchmark/json", response_model=Report)
def anonymous_json() -> Any:
    return REPORT


@app.get("/benchmark/me", response_model=Me)
def me(user: CurrentUser) -> Any:
    roles = sorted(role.name for role in user.roles)
    return REPORT | {"email": user.email, "roles": roles}


@app.get("/", response_class=HTMLResponse)
def page(request: Request) -> Any:
    context = {"title": "Home", "name": "Benchmark", "places": PLACES}
    return templates.TemplateResponse(request, "page.html", context)


def prepare() -> None:
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        roles = [Role(name=role) for role in ROLES]
        user = User(email=f"reader@{HOST}", roles=roles)
        session.add(user)
        session.commit()
        payload = {"sub": str(user.id), "exp": datetime.now(UTC) + timedelta(days=8)}
    token = jwt.encode(payload, KEY, algorithm=ALGORITHM)
    print(json.dumps({"Authorization": f"Bearer {token}"}))


if __name__ == "__main__":
    prepare()
