SELECT headline, urgency FROM headwater_views.news
WHERE urgency >= %(threshold)s
ORDER BY urgency DESC, hour DESC, version DESC
LIMIT 5
