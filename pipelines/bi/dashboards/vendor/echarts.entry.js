// The parts of Apache ECharts that the report draws with. README.md here says how echarts.min.js is built.
import { use, init } from "echarts/core";
import { BarChart, HeatmapChart, LineChart } from "echarts/charts";
import { AriaComponent, GridComponent, LegendScrollComponent, TooltipComponent, VisualMapContinuousComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

use([BarChart, HeatmapChart, LineChart, AriaComponent, GridComponent, LegendScrollComponent, TooltipComponent,
  VisualMapContinuousComponent, SVGRenderer]);

export { init };
