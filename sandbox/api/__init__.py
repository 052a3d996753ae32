"""The API's answers: request pipeline, lists, filters, rendering, token endpoint, writes."""
