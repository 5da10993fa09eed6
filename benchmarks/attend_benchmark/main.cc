// attend_benchmark worker WORKLOAD CONTESTANT    answers benchmarks/run.py
// attend_benchmark chart ROWS.json OUT           draws what run.py measured (.svg, .png or .pdf)
#include "benchmarks/attend_benchmark/chart.h"
#include "benchmarks/attend_benchmark/worker.h"

#include <exception>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        if (arguments.size() == 3 && arguments[0] == "worker") {
            attend::benchmark::work(arguments[1], arguments[2], std::cin, std::cout);
            return 0;
        }
        if (arguments.size() == 3 && arguments[0] == "chart") {
            attend::benchmark::chart(arguments[1], arguments[2]);
            return 0;
        }
    } catch (const std::exception& error) {
        std::cerr << "attend_benchmark: error: " << error.what() << "\n";
        return 1;
    }
    std::cerr << "usage: attend_benchmark worker WORKLOAD CONTESTANT | chart ROWS.json OUT.svg\n";
    return 2;
}
