#include "benchmarks/attend_benchmark/chart.h"

#include <attend/io/file.h>
#include <attend/viz/bar_chart.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <optional>
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

/// What the bars show: a share of the limit, or where none is known, the rate.
struct Quantity {
    const char* name;
    const char* label;
    std::optional<double> mark;
};
constexpr std::array<Quantity, 3> kQuantities{{
    {"percent_of_limit", "percent of the machine's limit, measured in the same run", 100.0},
    {"gflops", "GFLOP/s", std::nullopt},
    {"words_per_second", "words per second", std::nullopt},
}};

bool has_bar(const json& row, const Quantity& quantity) {
    return row.contains(quantity.name) && row.at(quantity.name).is_number();
}

const Quantity& quantity_of(const json& rows) {
    const auto any = [&](const Quantity& quantity) {
        return std::any_of(rows.begin(), rows.end(), [&](const json& row) { return has_bar(row, quantity); });
    };
    return *std::find_if(kQuantities.begin(), kQuantities.end() - 1, any);
}

}  // namespace

void chart(const std::string& rows_path, const std::string& picture_path) {
    const json rows = json::parse(read_file(rows_path));
    const Quantity& quantity = quantity_of(rows);
    viz::BarChart chart;
    std::vector<std::string> panels;
    for (const json& row : rows) {
        if (!has_bar(row, quantity)) continue;
        chart.title = row.at("workload").get<std::string>();
        index_of(chart.rows, row.at("case").get<std::string>());
        index_of(chart.series, row.at("contestant").get<std::string>());
        index_of(panels, panel_of(row));
    }
    chart.x_label = quantity.label;
    chart.mark = quantity.mark;
    const std::vector<std::optional<double>> none(chart.series.size());
    for (const std::string& panel : panels) {
        chart.panels.push_back({panel, std::vector<std::vector<std::optional<double>>>(chart.rows.size(), none)});
    }
    for (const json& row : rows) {
        if (!has_bar(row, quantity)) continue;
        auto& values = chart.panels[index_of(panels, panel_of(row))].values;
        values[index_of(chart.rows, row.at("case"))][index_of(chart.series, row.at("contestant"))] =
            row.at(quantity.name).get<double>();
    }
    viz::bar_chart(chart).save(picture_path);
}

}  // namespace attend::benchmark
