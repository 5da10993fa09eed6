#include "benchmarks/attend_benchmark/worker.h"

#include "benchmarks/attend_benchmark/compare.h"
#include "benchmarks/attend_benchmark/contestant.h"
#include "benchmarks/attend_benchmark/inputs.h"
#include "benchmarks/attend_benchmark/limits.h"

#include <attend/core/threads.h>
#include <attend/version.h>

#include <chrono>
#include <cmath>
#include <iostream>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace attend::benchmark {

namespace {

using nlohmann::json;

std::string attend_version() {
    return "attend " ATTEND_VERSION;
}

/// What the table below says of a contestant.
struct Entry {
    Prepare prepare;
    std::string (*version)();
};

const Entry& entry_of(const std::string& workload, const std::string& contestant) {
    static const std::map<std::pair<std::string, std::string>, Entry> entries{
        {{"attention", "attend"}, {prepare_attention, attend_version}},
        {{"attention_backward", "attend"}, {prepare_attention_backward, attend_version}},
        {{"calls", "attend"}, {prepare_calls, attend_version}},
        {{"decode", "attend"}, {prepare_decode, attend_version}},
        {{"matmul", "attend"}, {prepare_matmul, attend_version}},
        {{"matmul", "onednn"}, {prepare_matmul_onednn, onednn_version}},
        {{"linear_attention", "attend"}, {prepare_linear_attention, attend_version}},
        {{"translate", "attend"}, {prepare_translate, translate_version}},
    };
    const auto found = entries.find({workload, contestant});
    if (found == entries.end()) {
        throw std::invalid_argument("expected a workload and a contestant of it in C++, found '" + workload +
                                    "' and '" + contestant + "'");
    }
    return found->second;
}

/// Everything in double, so that outputs are too.
TensorMap widened(const TensorMap& inputs) {
    TensorMap wide;
    for (const auto& [name, tensor] : inputs) {
        wide.emplace(name, is_floating(tensor.dtype()) ? tensor.to(DType::float64) : tensor);
    }
    return wide;
}

class Worker {
public:
    explicit Worker(Prepare contestant) : contestant_(contestant) {}

    json answer(const json& request) {
        const std::string what = request.at("do").get<std::string>();
        if (what == "prepare") return prepare(request);
        if (what == "output") return output(request);
        if (what == "time") return time(request);
        if (what == "release") {
            prepared_.clear();
            return json::object();
        }
        if (what == "inputs") {
            save_safetensors(request.at("path"),
                             random_inputs(request.at("inputs"), request.at("seed").get<std::uint64_t>()));
            return json::object();
        }
        if (what == "compare") return compare(request);
        if (what == "limit") return limit(request);
        throw std::invalid_argument("expected something that a worker does, found '" + what + "'");
    }

private:
    /// More than one copy keeps a case from being served by the caches: calls take them in turn.
    json prepare(const json& request) {
        prepared_.clear();
        json the_case = request.at("case");
        const bool reference = request.value("reference", false);
        if (reference) the_case["algorithm"] = "reference";
        const SafetensorsFile file = SafetensorsFile::open(request.at("inputs").get<std::string>());
        for (int copy = 0; copy < request.value("copies", 1); ++copy) {
            prepared_.push_back(contestant_(the_case, reference ? widened(file.load_all()) : file.load_all()));
        }
        return json::object();
    }

    Contestant& next() {
        turn_ = (turn_ + 1) % prepared_.size();
        return *prepared_[turn_];
    }

    json output(const json& request) {
        Contestant& contestant = next();
        contestant.run();
        contestant.save(request.at("path"));
        return json::object();
    }

    json time(const json& request) {
        const int repeat = request.at("repeat").get<int>();
        for (int i = 0; i < request.value("warm_up", 0); ++i) next().run();
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < repeat; ++i) next().run();
        const std::chrono::duration<double> all = std::chrono::steady_clock::now() - begin;
        json answer = {{"seconds", all.count() / repeat}};
        if (const std::optional<double> peak = prepared_.front()->peak_mb()) answer["peak_mb"] = *peak;
        return answer;
    }

    static json compare(const json& request) {
        const SafetensorsFile found = SafetensorsFile::open(request.at("output").get<std::string>());
        const SafetensorsFile expected = SafetensorsFile::open(request.at("reference").get<std::string>());
        json errors = json::object();
        for (const std::string& name : expected.names()) {
            const double error = largest_error(found.view(name), expected.view(name));
            errors[name] = std::isfinite(error) ? json(error) : json(nullptr);
        }
        return {{"errors", errors}};
    }

    json limit(const json& request) {
        if (!machine_) {
            machine_.emplace(num_threads(), request.value("isa", "best") == "avx2" ? Isa::avx2 : Isa::best,
                             request.at("bytes").get<std::size_t>());
        }
        const std::optional<Limit> limit = machine_->measure(request.at("name").get<std::string>());
        if (!limit) return {{"billions", nullptr}};
        return {{"billions", limit->billions}, {"instruction", limit->instruction}};
    }

    Prepare contestant_;
    std::vector<std::unique_ptr<Contestant>> prepared_;
    std::size_t turn_ = 0;
    std::optional<Machine> machine_;
};

}  // namespace

void work(const std::string& workload, const std::string& contestant, std::istream& in, std::ostream& out) {
    const Entry& entry = entry_of(workload, contestant);
    try {
        out << json{{"version", entry.version()}} << std::endl;
    } catch (const Missing& reason) {
        out << json{{"missing", reason.what()}} << std::endl;
        return;
    }
    Worker worker(entry.prepare);
    for (std::string line; std::getline(in, line);) {
        json answer;
        try {
            answer = worker.answer(json::parse(line));
        } catch (const Unsupported& error) {
            answer = {{"unsupported", error.what()}};
        } catch (const std::exception& error) {
            answer = {{"failed", error.what()}};
        }
        out << answer << std::endl;
    }
}

}  // namespace attend::benchmark
