"""The drivers that an application may bring; each module is loaded when its package's connection is seen."""

from headwater.log.statements import Statements

SQL = Statements("headwater.log.drivers")
