SELECT symbol, count(*) AS orders, sum(quantity) AS shares, sum(amount) AS turnover, sum(fee) AS fees
FROM (SELECT symbol, quantity, quantity * price AS amount, fee FROM portfolio.bought
      UNION ALL
      SELECT symbol, quantity, quantity * price AS amount, fee FROM portfolio.sold) AS orders
GROUP BY symbol
