// Keeps the overview current: each snapshot replaces the texts of cells that are already there.
// Whatever a snapshot says is set as text, never as HTML.
"use strict";

(() => {
    const STALE_MS = 3000;
    const SHOWN_S = 300;
    const FIRST_RETRY_MS = 500;
    const LONGEST_RETRY_MS = 15000;

    const read = (id) => JSON.parse(document.getElementById(id).textContent);
    const columns = read("mw-columns");
    const charts = new Charts(read("mw-history"), read("mw-charts"), SHOWN_S);
    const link = document.getElementById("mw-link");
    const banner = document.getElementById("mw-stale");
    let sequence = 0;
    let heardAt = performance.now();
    let retryMs = FIRST_RETRY_MS;
    let refused = false;

    function setText(element, text) {
        if (element.textContent !== text) {
            element.textContent = text;
        }
    }

    function buildRow(table, row) {
        const line = document.createElement("tr");
        line.dataset.key = row.key;
        for (const [key, heading, isNumber] of columns[table]) {
            const cell = document.createElement("td");
            cell.dataset.cell = key;
            cell.dataset.label = heading;
            if (isNumber) {
                cell.className = "mw-number";
            }
            if (key === "state") {
                cell.appendChild(document.createElement("span")).className = "mw-state";
            } else if (row.link && line.cells.length === 0) {
                cell.appendChild(document.createElement("a")).href = row.link;
            }
            line.appendChild(cell);
        }
        return line;
    }

    function fillRow(line, row) {
        line.dataset.level = row.level;
        line.toggleAttribute("data-alert", row.alert);
        for (const cell of line.cells) {
            const text = row.cells[cell.dataset.cell] ?? "";
            if (cell.dataset.cell === "state") {
                cell.firstElementChild.dataset.state = row.state;
                setText(cell.firstElementChild, text);
            } else {
                setText(cell.firstElementChild ?? cell, text);
            }
        }
    }

    function showTable(name, rows) {
        const table = document.querySelector(`table[data-table="${name}"]`);
        const body = table.tBodies[0];
        const known = new Map(Array.from(body.rows, (line) => [line.dataset.key, line]));
        rows.forEach((row, index) => {
            const line = known.get(row.key) ?? buildRow(name, row);
            known.delete(row.key);
            fillRow(line, row);
            if (body.rows[index] !== line) {
                body.insertBefore(line, body.rows[index] ?? null);
            }
        });
        known.forEach((line) => line.remove());
        table.hidden = rows.length === 0;
        document.querySelector(`[data-empty="${name}"]`).hidden = rows.length > 0;
    }

    function showNotices(notices) {
        const area = document.getElementById("mw-notices");
        if (JSON.stringify(notices) === JSON.stringify(Array.from(area.children, (line) => line.textContent))) {
            return;
        }
        area.replaceChildren(...notices.map((text) => {
            const line = document.createElement("p");
            line.className = "mw-banner";
            line.textContent = text;
            return line;
        }));
    }

    function show(snapshot) {
        if (snapshot.seq <= sequence) {
            return;
        }
        sequence = snapshot.seq;
        for (const cell of document.querySelectorAll("[data-total]")) {
            setText(cell, snapshot.totals[cell.dataset.total]);
            cell.dataset.level = snapshot.levels[cell.dataset.total] ?? "";
        }
        for (const [name, rows] of Object.entries(snapshot.tables)) {
            showTable(name, rows);
        }
        showNotices(snapshot.notices);
        charts.add(snapshot.at, snapshot.numbers);
    }

    function showLink() {
        const silentMs = performance.now() - heardAt;
        const stale = refused || silentMs > STALE_MS;
        const state = stale ? "stale" : sequence ? "live" : "connecting";
        link.dataset.state = state;
        setText(link, state);
        banner.hidden = !stale;
        if (refused) {
            setText(banner, "You are no longer logged in. Reload the page to log in again.");
        } else if (stale) {
            setText(banner, `No news from the appliance for ${Math.round(silentMs / 1000)} s: what you see is old. Trying again.`);
        }
    }

    function connect() {
        const scheme = location.protocol === "https:" ? "wss" : "ws";
        const socket = new WebSocket(`${scheme}://${location.host}/ws/overview/`);
        sequence = 0;
        socket.onmessage = (event) => {
            heardAt = performance.now();
            retryMs = FIRST_RETRY_MS;
            show(JSON.parse(event.data));
            showLink();
        };
        socket.onclose = (event) => {
            if (event.code === 4403) {
                refused = true;
                showLink();
                return;
            }
            setTimeout(connect, retryMs * (0.75 + Math.random() / 2));
            retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
        };
    }

    setInterval(showLink, 500);
    connect();
})();
