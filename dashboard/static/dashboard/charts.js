// The overview's charts: five minutes of lines that grow by one point a snapshot.
"use strict";

// Points further apart are not joined: what happened between is not known.
const LONGEST_BRIDGE_S = 5;

class Charts {
    constructor(history, lines, seconds) {
        this.seconds = seconds;
        this.step = history.step_s;
        this.at = history.at.slice();
        this.values = history.lines;
        this.dropUnwritten();
        this.charts = [];
        for (const canvas of document.querySelectorAll("canvas[data-chart]")) {
            this.charts.push(this.draw(canvas, lines[canvas.dataset.chart]));
        }
        this.paint();
        new MutationObserver(() => this.paint()).observe(document.documentElement, { attributeFilter: ["class"] });
    }

    // The newest seconds of history are not written yet; a live point follows on the last that is.
    dropUnwritten() {
        const lines = Object.values(this.values);
        while (this.at.length && lines.every((line) => line[line.length - 1] === null)) {
            this.at.pop();
            lines.forEach((line) => line.pop());
        }
    }

    draw(canvas, spec) {
        const datasets = spec.lines.map((line) => ({
            label: line.label,
            name: line.name,
            data: [],
            borderWidth: 1.5,
            pointRadius: 0,
            pointHitRadius: 6,
            tension: 0.2,
            fill: spec.lines.length === 1 ? "origin" : false,
        }));
        return new Chart(canvas, {
            type: "line",
            data: { datasets },
            options: {
                animation: false,
                maintainAspectRatio: false,
                parsing: false,
                normalized: true,
                interaction: { mode: "nearest", axis: "x", intersect: false },
                plugins: {
                    legend: { display: false },
                    tooltip: {
                        callbacks: {
                            title: (items) => (items.length ? new Date(items[0].parsed.x * 1000).toLocaleTimeString("en-GB") : ""),
                            label: (item) => `${item.dataset.label}: ${this.format(item.parsed.y, spec.unit)}`,
                        },
                    },
                },
                scales: {
                    x: { type: "linear", grid: { display: false }, ticks: { maxRotation: 0, autoSkip: false, font: { size: 11 }, callback: (value) => this.ago(value) }, afterBuildTicks: (axis) => { axis.ticks = (axis.chart.width < 360 ? [1, 3, 5] : [0, 1, 2, 3, 4, 5]).map((minute) => ({ value: axis.min + minute * 60 })).filter((tick) => tick.value <= axis.max); } },
                    y: { beginAtZero: true, suggestedMax: spec.least, max: spec.most, border: { display: false }, ticks: { maxTicksLimit: 4, font: { size: 11 }, callback: (value) => this.format(value, spec.unit) } },
                },
            },
        });
    }

    format(value, unit) {
        if (unit === "ms" && value >= 1000) {
            return this.format(value / 1000, "s");
        }
        const text = Number(value).toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
        return unit ? `${text} ${unit}` : text;
    }

    ago(value) {
        const minutes = Math.round((this.newest() - value) / 60);
        return minutes ? `−${minutes} min` : "now";
    }

    newest() {
        return this.at.length ? this.at[this.at.length - 1] : Date.now() / 1000;
    }

    add(at, numbers) {
        this.push(at, numbers);
        while (this.at.length && this.at[0] < at - this.seconds) {
            this.at.shift();
            for (const name of Object.keys(this.values)) {
                this.values[name].shift();
            }
        }
        this.update();
    }

    push(at, numbers) {
        this.at.push(at);
        for (const name of Object.keys(this.values)) {
            this.values[name].push(numbers[name] ?? null);
        }
    }

    update() {
        for (const chart of this.charts) {
            for (const dataset of chart.data.datasets) {
                const line = this.values[dataset.name];
                dataset.data = this.at.map((at, index) => ({ x: at, y: line[index] })).filter((point) => point.y !== null);
                dataset.spanGaps = Math.max(LONGEST_BRIDGE_S, 1.5 * this.step);
            }
            chart.options.scales.x.min = this.newest() - this.seconds;
            chart.options.scales.x.max = this.newest();
            chart.update("none");
        }
    }

    paint() {
        const style = getComputedStyle(document.documentElement);
        const read = (name) => style.getPropertyValue(name).trim();
        for (const chart of this.charts) {
            chart.data.datasets.forEach((dataset, index) => {
                const colour = read(`--mw-line-${index + 1}`);
                dataset.borderColor = dataset.pointHoverBackgroundColor = colour;
                dataset.backgroundColor = `${colour}1f`;
            });
            const tick = document.documentElement.classList.contains("dark") ? "#9ca3af" : "#6b7280";
            const grid = document.documentElement.classList.contains("dark") ? "#ffffff14" : "#0000000f";
            for (const axis of Object.values(chart.options.scales)) {
                axis.ticks.color = tick;
                axis.grid = { ...axis.grid, color: grid };
            }
        }
        this.update();
    }
}
