SELECT count(*) FROM headwater.parked
