SELECT rule, count(*) AS records, count(DISTINCT match) AS matches FROM match.rule_broken GROUP BY rule
