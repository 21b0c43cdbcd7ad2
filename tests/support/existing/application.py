"""A shop that a team has: SQLAlchemy models, FastAPI, PostgreSQL. It knows nothing of Headwater.

Started as ``uvicorn tests.support.existing.application:api``, with SHOP_DATABASE_URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import ForeignKey, Numeric, String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

engine = create_async_engine(os.environ["SHOP_DATABASE_URL"], pool_pre_ping=True)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    orders: Mapped[list[Order]] = relationship(
        back_populates="customer", cascade="all, delete-orphan"
    )


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    total: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    status: Mapped[str] = mapped_column(default="new")
    customer: Mapped[Customer] = relationship(back_populates="orders")


class NewOrder(BaseModel):
    customer: str
    customer_id: int
    total: Decimal


class ChangedOrder(BaseModel):
    total: Decimal


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened, opened.begin():
        yield opened


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


api = FastAPI(lifespan=lifespan)
# A session that commits before the answer is sent: what was acknowledged is durable.
Session = Annotated[AsyncSession, Depends(session, scope="function")]


@api.post("/orders", status_code=201)
async def place(body: NewOrder, db: Session) -> int:
    customer = await db.get(Customer, body.customer_id)
    if customer is None:
        customer = Customer(id=body.customer_id, name=body.customer)
        db.add(customer)
    order = Order(customer=customer, total=body.total)
    db.add(order)
    await db.flush()
    return order.id


@api.patch("/orders/{order_id}")
async def change(order_id: int, body: ChangedOrder, db: Session) -> None:
    order = await db.get(Order, order_id)
    if order is None:
        raise HTTPException(404)
    order.total, order.status = body.total, "changed"


@api.delete("/orders/{order_id}")
async def cancel(order_id: int, db: Session) -> None:
    order = await db.get(Order, order_id)
    if order is None:
        raise HTTPException(404)
    await db.delete(order)
