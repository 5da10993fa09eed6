#include "benchmarks/attend_benchmark/chart.h"

#include <attend/io/file.h>
#include <attend/viz/bar_chart.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace attend::benchmark {

namespace {

using nlohmann::json;

/// Where `name` stands among `names`, at whose end it is added when it is new.
std::size_t index_of(std::vector<std::string>& names, const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
    names.push_back(name);
    return names.size() - 1;
}

std::string panel_of(const json& row) {
    const int threads = row.at("threads").get<int>();
    return row.at("dtype").get<std::string>() + ", " + std::to_string(threads) +
           (threads == 1 ? " thread" : " threads");
}

bool has_bar(const json& row) {
    return row.contains("percent_of_limit") && row.at("percent_of_limit").is_number();
}

}  // namespace

void chart(const std::string& rows_path, const std::string& picture_path) {
    const json rows = json::parse(read_file(rows_path));
    viz::BarChart chart;
    std::vector<std::string> panels;
    for (const json& row : rows) {
        if (!has_bar(row)) continue;
        chart.title = row.at("workload").get<std::string>();
        index_of(chart.rows, row.at("case").get<std::string>());
        index_of(chart.series, row.at("contestant").get<std::string>());
        index_of(panels, panel_of(row));
    }
    chart.x_label = "percent of the machine's limit, measured in the same run";
    chart.mark = 100.0;
    const std::vector<std::optional<double>> none(chart.series.size());
    for (const std::string& panel : panels) {
        chart.panels.push_back({panel, std::vector<std::vector<std::optional<double>>>(chart.rows.size(), none)});
    }
    for (const json& row : rows) {
        if (!has_bar(row)) continue;
        auto& values = chart.panels[index_of(panels, panel_of(row))].values;
        values[index_of(chart.rows, row.at("case"))][index_of(chart.series, row.at("contestant"))] =
            row.at("percent_of_limit").get<double>();
    }
    viz::bar_chart(chart).save(picture_path);
}

}  // namespace attend::benchmark
