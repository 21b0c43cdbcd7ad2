SELECT count(*) FROM headwater.events
