"""The global level: what is above the controllers of the regions. It holds nothing but uploads; which job is
where, and what is on its way, it is told by the regions, and after a start again."""
