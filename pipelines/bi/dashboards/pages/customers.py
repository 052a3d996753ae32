"""Customers and products: who buys again, what is bought."""

from pipelines.bi.dashboards.pages.common import MONTH
from pipelines.bi.dashboards.spec import Dimension, Kind, ListColumn, Measure, Page, Tile, Unit, Words

CUSTOMERS_COUNT = Measure("customers", Words("Customers", "Покупатели"), "count(*)")
BUYERS = Measure("buyers", Words("Have bought", "Покупали"), "count(*) FILTER (WHERE purchases > 0)")
REPEAT = Measure("repeat_share", Words("Bought again", "Купили снова"), "count(*) FILTER (WHERE is_repeat)",
                 "count(*) FILTER (WHERE purchases > 0)", Unit.SHARE)
LTV = Measure("ltv", Words("LTV, total", "LTV, всего"), "sum(ltv)", unit=Unit.MONEY)
AVERAGE_LTV = Measure("average_ltv", Words("LTV of a buyer", "LTV покупателя"), "sum(ltv)",
                      "count(*) FILTER (WHERE purchases > 0)", Unit.MONEY)
RETENTION = Measure("retention", Words("Bought again", "Купили снова"), "sum(active_customers)",
                    "sum(customers)", Unit.SHARE)
COHORT_VALUE = Measure("value", Words("Value of purchases", "Сумма покупок"), "sum(value)", unit=Unit.MONEY)
AMOUNT = Measure("amount", Words("Amount", "Сумма"), "sum(amount)", unit=Unit.MONEY)
QUANTITY = Measure("quantity", Words("Quantity", "Количество"), "sum(quantity)")
SALES = Measure("sales", Words("Deals and purchases", "Сделки и покупки"), "count(*)")
SEGMENT = Dimension("segment", Words("Segment", "Сегмент"),
                    values={"champions": Words("champions: recently and often", "чемпионы: недавно и часто"),
                            "loyal": Words("loyal", "лояльные"),
                            "new": Words("new: recently, seldom", "новые: недавно, редко"),
                            "at risk": Words("at risk: often, long ago", "под угрозой: часто, но давно"),
                            "lost": Words("lost: seldom and long ago", "потерянные: редко и давно")})
COHORT = Dimension("cohort_month", Words("First purchase", "Первая покупка"),
                   sql="to_char(cohort_month, 'YYYY-MM')")
MONTHS_SINCE = Dimension("months_since", Words("Months later", "Месяцев спустя"),
                         sql="lpad(months_since::text, 2, '0')")
PRODUCT = Dimension("product", Words("Product", "Товар"))
CATALOG = Dimension("catalog", Words("List", "Список"))
NO_CUSTOMERS = Words("There are no customers in this mirror: the account has the feature off, or it was not "
                     "read yet",
                     "Покупателей в копии нет: раздел в аккаунте выключен или ещё не прочитан")
NO_PURCHASES = Words("There are no purchases in this mirror", "Покупок в копии нет")

TILES = (Tile("customers", "customer_ltv", Kind.NUMBER, Words("Customers now", "Покупатели сейчас"),
              (CUSTOMERS_COUNT,)),
         Tile("repeat_share", "customer_ltv", Kind.NUMBER, Words("Bought again", "Купили снова"), (REPEAT,),
              hints=Words("Of those who have bought", "Из тех, кто покупал")),
         Tile("average_ltv", "customer_ltv", Kind.NUMBER, Words("LTV of a buyer", "LTV покупателя"),
              (AVERAGE_LTV,), hints=Words("All purchases until now", "Все покупки на сегодня")),
         Tile("sold_amount", "products_sold", Kind.NUMBER, Words("Products sold", "Продано товаров"),
              (AMOUNT,), date="sold_date",
              hints=Words("Quantity × today's price", "Количество × сегодняшняя цена")),
         Tile("products", "products_sold", Kind.BARS, Words("Products sold", "Проданные товары"),
              (AMOUNT, QUANTITY, SALES), (PRODUCT,), "sold_date",
              hints=Words("On deals won and on purchases of the period; at today's prices",
                          "В выигранных сделках и покупках периода; по сегодняшним ценам"),
              empty=Words("Nothing was sold with a product on it in this period",
                          "За период нет продаж с товарами")),
         Tile("sold_by_month", "products_sold", Kind.COLUMNS,
              Words("Products sold over time", "Продажи товаров по времени"), (AMOUNT,), (MONTH, CATALOG),
              "sold_date"),
         Tile("rfm", "customer_rfm", Kind.BARS, Words("Customers by RFM", "Покупатели по RFM"),
              (CUSTOMERS_COUNT, LTV), (SEGMENT,),
              hints=Words("By how recently and how often they have bought",
                          "По тому, как недавно и как часто покупали"), empty=NO_PURCHASES),
         Tile("cohorts", "customer_cohorts", Kind.HEATMAP,
              Words("Cohorts: who buys again", "Когорты: кто покупает снова"), (RETENTION, COHORT_VALUE),
              (COHORT, MONTHS_SINCE),
              where="months_since BETWEEN 0 AND 12 AND cohort_month > now() - interval '14 months'",
              hints=Words("Of the customers who first bought in a month, the share that bought again, month "
                          "by month",
                          "Доля покупателей, впервые купивших в месяце, которые покупали снова, по месяцам"),
              empty=NO_PURCHASES),
         Tile("best_customers", "customer_ltv", Kind.LIST, Words("Best customers", "Лучшие покупатели"),
              order="ltv DESC, customer_id",
              columns=(ListColumn("name", Words("Customer", "Покупатель"), Unit.NAME,
                                  "coalesce(nullif(name, ''), customer_id::text)"),
                       ListColumn("responsible_user", Words("Manager", "Менеджер"), Unit.USER),
                       ListColumn("purchases", Words("Purchases", "Покупки"), Unit.COUNT),
                       ListColumn("ltv", Words("LTV", "LTV"), Unit.MONEY),
                       ListColumn("last_purchase_date", Words("Last purchase", "Последняя покупка"),
                                  Unit.DATE)), where="purchases > 0", empty=NO_CUSTOMERS))

CUSTOMERS = Page("customers", Words("Customers and products", "Покупатели и товары"), TILES)
