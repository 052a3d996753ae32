"""The account, its departments, kinds of task, users, roles and their rights (amocrm-api.md 3.1 to 3.4)."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped

from models.base import (
    AccountBase,
    DateTime,
    EntityTable,
    Extra,
    Json,
    flag,
    integer,
    json,
    key,
    owner,
    text,
    timestamp,
)


class Account(EntityTable, AccountBase):
    __tablename__ = "accounts"
    __table_args__ = {"comment": "The amoCRM account that this schema mirrors: one row"}

    id: Mapped[int] = key("Account id")
    name: Mapped[str | None] = text("Name of the account")
    subdomain: Mapped[str | None] = text("First part of the account's host name")
    country: Mapped[str | None] = text("Two-letter country code")
    currency: Mapped[str | None] = text("Three-letter code of the currency of all prices")
    currency_symbol: Mapped[str | None] = text("Sign of the currency")
    customers_mode: Mapped[str | None] = text(
        "Customers feature: unavailable, disabled, segments, dynamic or periodicity")
    timezone: Mapped[str | None] = text("IANA name of the account's time zone; date fields are days in it",
                                        path=("_embedded", "datetime_settings", "timezone"), derived=True)
    current_user_id: Mapped[int | None] = integer("User whose token the mirror reads with", refers="users.id")
    is_unsorted_on: Mapped[bool | None] = flag("Incoming leads (unsorted) are on")
    is_loss_reason_enabled: Mapped[bool | None] = flag("Loss reasons are on")
    is_helpbot_enabled: Mapped[bool | None] = flag("The helper bot is on")
    is_technical_account: Mapped[bool | None] = flag("A technical account of a developer")
    is_api_filter_enabled: Mapped[bool | None] = flag("The paid filter option of the API is on")
    contact_name_display_order: Mapped[int | None] = integer("1: first name first, 2: last name first")
    created_at: Mapped[DateTime | None] = timestamp("When the account was created")
    created_by: Mapped[int | None] = integer("User who created it", refers="users.id")
    updated_at: Mapped[DateTime | None] = timestamp("When the account's settings were changed last")
    updated_by: Mapped[int | None] = integer("User who changed them last", refers="users.id")
    mobile_feature_version: Mapped[int | None] = integer("Version of the mobile features")
    version: Mapped[int | None] = integer("Version of the account")
    uuid: Mapped[str | None] = text("UUID of the account")
    amojo_id: Mapped[str | None] = text("Id of the account in the chat service")
    drive_url: Mapped[str | None] = text("Address of the file service")
    amojo_rights: Mapped[Json | None] = json("Rights in the chat service", path=("_embedded", "amojo_rights"))
    datetime_settings: Mapped[Json | None] = json("Formats of dates and times, and the time zone",
                                                  path=("_embedded", "datetime_settings"))
    entity_names: Mapped[Json | None] = json(
        "What the account calls leads, contacts, …, by language and case")
    invoices_settings: Mapped[Json | None] = json("Language of invoices and the catalog that holds them")


class UserGroup(EntityTable, AccountBase):
    __tablename__ = "user_groups"
    __table_args__ = {"comment": "Departments (отделы) of the account; 0 is the default one and is real"}

    id: Mapped[int] = key("Department id; 0 is the default department")
    name: Mapped[str | None] = text("Name of the department")
    uuid: Mapped[str | None] = text("UUID of the department")


class TaskType(EntityTable, AccountBase):
    __tablename__ = "task_types"
    __table_args__ = {"comment": "Kinds of task (типы задач): amoCRM's own and the account's"}

    id: Mapped[int] = key("Task type id; 1 is a follow-up, 2 a meeting")
    name: Mapped[str | None] = text("Name of the kind of task")
    color: Mapped[str | None] = text("Colour, six hexadecimal digits")
    icon_id: Mapped[int | None] = integer("Number of the icon")
    code: Mapped[str | None] = text("FOLLOW_UP, MEETING, or null for the account's own kinds")


class Role(EntityTable, AccountBase):
    __tablename__ = "roles"
    __table_args__ = {"comment": "Roles (роли): named sets of rights"}

    id: Mapped[int] = key("Role id")
    name: Mapped[str | None] = text("Name of the role")
    rights: Mapped[Json | None] = json(
        "Rights as the API gives them; also row by row in role_rights and role_status_rights")
    users: Mapped[Json | None] = json("Users who have the role: a list of {id}", path=("_embedded", "users"))


class User(EntityTable, AccountBase):
    __tablename__ = "users"
    __table_args__ = {
        "comment": "Users (пользователи). One who left the account stays here, with _deleted_at set",
        "info": {"zero_is_a_robot": True}}

    id: Mapped[int] = key("User id")
    name: Mapped[str | None] = text("Name of the user")
    email: Mapped[str | None] = text("E-mail address, which is the login")
    lang: Mapped[str | None] = text("Language of the user's interface")
    group_id: Mapped[int | None] = integer("Department; 0 is the default one", derived=True,
                                           refers="user_groups.id")
    role_id: Mapped[int | None] = integer(
        "Role; null for administrators and for rights set by hand", derived=True, refers="roles.id")
    is_admin: Mapped[bool | None] = flag("Is an administrator", path=("rights", "is_admin"), derived=True)
    is_active: Mapped[bool | None] = flag("May log in", path=("rights", "is_active"), derived=True)
    is_free: Mapped[bool | None] = flag("Has no paid seat", path=("rights", "is_free"), derived=True)
    mail_access: Mapped[bool | None] = flag("May use mail", path=("rights", "mail_access"), derived=True)
    catalog_access: Mapped[bool | None] = flag("May use lists",
                                               path=("rights", "catalog_access"), derived=True)
    uuid: Mapped[str | None] = text("UUID of the user")
    amojo_id: Mapped[str | None] = text("Id of the user in the chat service")
    user_rank: Mapped[str | None] = text("newbie, candidate or master")
    phone_number: Mapped[str | None] = text("Telephone number")
    rights: Mapped[Json | None] = json(
        "Rights as the API gives them; also row by row in user_rights and user_status_rights")
    groups: Mapped[Json | None] = json("The user's departments: a list of {id, name}",
                                       path=("_embedded", "groups"))
    roles: Mapped[Json | None] = json("The user's roles: a list of {id, name}", path=("_embedded", "roles"))


class Right(Extra):
    """Rights for one kind of entity: A (all), G (own department), M (own), L (linked), D (denied)."""

    entity_type: Mapped[str] = key("Kind of entity: leads, contacts, companies, tasks, …", Text)
    view: Mapped[str | None] = text("May see: A all, G own department, M own, L linked, D none")
    edit: Mapped[str | None] = text("May change: A, G, M or D")
    add: Mapped[str | None] = text("May create: A or D")
    delete: Mapped[str | None] = text("May delete: A, G, M or D")
    export: Mapped[str | None] = text("May export: A, G, M or D")


class StatusRight(Extra):
    """Rights in one stage of a pipeline; they restrict the general rights."""

    entity_type: Mapped[str] = key("Kind of entity: leads", Text)
    pipeline_id: Mapped[int] = key("Pipeline", refers="pipelines.id")
    status_id: Mapped[int] = key("Stage; 142 and 143 exist in every pipeline")
    view: Mapped[str | None] = text("May see: A or D", path=("rights", "view"))
    edit: Mapped[str | None] = text("May change: A or D", path=("rights", "edit"))
    delete: Mapped[str | None] = text("May delete: A or D", path=("rights", "delete"))
    export: Mapped[str | None] = text("May export: A or D; the unsorted stage has none",
                                      path=("rights", "export"))


class UserRight(Right, AccountBase):
    __tablename__ = "user_rights"
    __table_args__ = {"comment": "What a user may do, one row per kind of entity"}

    user_id: Mapped[int] = owner("users.id", "User")


class RoleRight(Right, AccountBase):
    __tablename__ = "role_rights"
    __table_args__ = {"comment": "What a role allows, one row per kind of entity"}

    role_id: Mapped[int] = owner("roles.id", "Role")


class UserStatusRight(StatusRight, AccountBase):
    __tablename__ = "user_status_rights"
    __table_args__ = {"comment": "What a user may do in one stage"}

    user_id: Mapped[int] = owner("users.id", "User")


class RoleStatusRight(StatusRight, AccountBase):
    __tablename__ = "role_status_rights"
    __table_args__ = {"comment": "What a role allows in one stage"}

    role_id: Mapped[int] = owner("roles.id", "Role")
