#include <attend/io/safetensors_header.h>

#include <attend/core/error.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <utility>
#include <vector>

namespace attend::detail {

namespace {

using Json = nlohmann::ordered_json;

/// Bits of an element for every dtype that the format knows; 0 for a name that it does not.
std::size_t element_bits(std::string_view name) {
    constexpr std::array<std::pair<std::string_view, std::size_t>, 20> kBits{{
        {"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
        {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},    {"U32", 32},    {"F32", 32},    {"F64", 64},
        {"I64", 64}, {"U64", 64}, {"C64", 64},  {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},
    }};
    for (const auto& [known, bits] : kBits) {
        if (known == name) return bits;
    }
    return 0;
}

/// Builds the header while the parser runs and stops at the first value that does not belong there, so that a hostile
/// header costs no more than the bytes it has.
class Handler : public nlohmann::json_sax<Json> {
public:
    explicit Handler(SafetensorsHeader& header) : header_(header) {}

    const std::string& complaint() const { return complaint_; }

    bool null() override { return unexpected("null"); }
    bool boolean(bool) override { return unexpected("a boolean"); }
    bool number_float(number_float_t, const string_t&) override { return unexpected("a fraction"); }
    bool binary(binary_t&) override { return unexpected("binary data"); }

    bool number_integer(number_integer_t value) override { return unexpected("the number " + std::to_string(value)); }

    bool number_unsigned(number_unsigned_t value) override {
        if (state_ != State::shape && state_ != State::offsets) return unexpected("a number");
        if (value > static_cast<number_unsigned_t>(INT64_MAX)) return unexpected("the number " + std::to_string(value));
        numbers_.push_back(static_cast<std::int64_t>(value));
        if (numbers_.size() > static_cast<std::size_t>(kMaxRank)) {
            return complain("at most " + std::to_string(kMaxRank) + " extents", "more");
        }
        return true;
    }

    bool string(string_t& value) override {
        if (state_ == State::metadata_value) {
            header_.metadata[field_] = value;
            state_ = State::metadata;
            return true;
        }
        if (state_ != State::dtype) return unexpected("a string");
        entry_.dtype = value;
        state_ = State::entry;
        return true;
    }

    bool start_object(std::size_t) override {
        if (state_ == State::start) {
            state_ = State::top;
        } else if (state_ == State::entry_value) {
            state_ = State::entry;
            entry_ = {};
            seen_.clear();
        } else if (state_ == State::metadata_object) {
            state_ = State::metadata;
        } else {
            return unexpected("an object");
        }
        return true;
    }

    bool key(string_t& name) override {
        if (state_ == State::top) {
            name_ = name;
            if (!names_.insert(name).second) return complain("each name once", "it twice");
            state_ = name == "__metadata__" ? State::metadata_object : State::entry_value;
            return true;
        }
        field_ = name;
        if (state_ == State::metadata) {
            if (header_.metadata.count(name) != 0) return complain("each key once", "'" + name + "' twice");
            state_ = State::metadata_value;
            return true;
        }
        if (!seen_.insert(name).second) return complain("each field once", "'" + name + "' twice");
        if (name == "dtype") {
            state_ = State::dtype;
        } else if (name == "shape") {
            state_ = State::shape_begin;
        } else if (name == "data_offsets") {
            state_ = State::offsets_begin;
        } else {
            return complain("the fields dtype, shape and data_offsets", "'" + name + "'");
        }
        return true;
    }

    bool end_object() override {
        if (state_ == State::entry) {
            if (seen_.size() != 3) return complain("the fields dtype, shape and data_offsets", "not all of them");
            header_.entries[name_] = entry_;
            state_ = State::top;
        } else if (state_ == State::metadata) {
            state_ = State::top;
        } else {
            state_ = State::done;
        }
        return true;
    }

    bool start_array(std::size_t) override {
        numbers_.clear();
        if (state_ == State::shape_begin) {
            state_ = State::shape;
        } else if (state_ == State::offsets_begin) {
            state_ = State::offsets;
        } else {
            return unexpected("an array");
        }
        return true;
    }

    bool end_array() override {
        if (state_ == State::shape) {
            entry_.shape = Shape(std::span<const std::int64_t>(numbers_));
        } else {
            if (numbers_.size() != 2) return complain("two data_offsets", std::to_string(numbers_.size()));
            entry_.begin = static_cast<std::size_t>(numbers_[0]);
            entry_.end = static_cast<std::size_t>(numbers_[1]);
        }
        state_ = State::entry;
        return true;
    }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
        if (complaint_.empty()) {
            complaint_ = "expected a header in JSON, found an error at byte " + std::to_string(position) + " of it";
        }
        return false;
    }

private:
    enum class State {
        start,
        top,
        entry_value,
        entry,
        dtype,
        shape_begin,
        shape,
        offsets_begin,
        offsets,
        metadata_object,
        metadata,
        metadata_value,
        done,
    };

    bool complain(const std::string& expected, const std::string& found) {
        complaint_ = "expected " + expected + (name_.empty() ? "" : " for '" + name_ + "'") + ", found " + found;
        return false;
    }

    bool unexpected(const std::string& found) {
        switch (state_) {
            case State::start:
            case State::top:
            case State::done:
                return complain("a JSON object of tensors", found);
            case State::entry_value:
                return complain("an object with dtype, shape and data_offsets", found);
            case State::entry:
            case State::dtype:
                return complain("a string as dtype", found);
            case State::shape_begin:
            case State::shape:
                return complain("extents of at least 0 as shape", found);
            case State::offsets_begin:
            case State::offsets:
                return complain("two data_offsets of at least 0", found);
            case State::metadata_object:
            case State::metadata:
            case State::metadata_value:
                return complain("strings only", found);
        }
        return false;
    }

    SafetensorsHeader& header_;
    std::string complaint_;
    State state_ = State::start;
    std::string name_;
    std::string field_;
    std::set<std::string> names_;
    std::set<std::string> seen_;
    SafetensorsEntry entry_;
    std::vector<std::int64_t> numbers_;
};

/// Sizes that fit shapes, and ranges that cover the data exactly once.
void check_layout(const SafetensorsHeader& header, std::size_t data_size, const std::string& file) {
    const auto fail = [&](const std::string& name, const std::string& expected, const std::string& found) {
        throw FileError("safetensors",
                        "expected " + expected + " for tensor '" + name + "' in '" + file + "', found " + found);
    };
    std::vector<std::pair<const std::string*, const SafetensorsEntry*>> ordered;
    for (const auto& [name, entry] : header.entries) {
        const std::size_t bits = element_bits(entry.dtype);
        if (bits == 0) fail(name, "a dtype of the format", "'" + entry.dtype + "'");
        std::size_t total_bits = bits;
        bool empty = false;
        bool overflow = false;
        for (const std::int64_t extent : entry.shape) {
            empty = empty || extent == 0;
            overflow = __builtin_mul_overflow(total_bits, static_cast<std::size_t>(extent), &total_bits) || overflow;
        }
        if (empty) total_bits = 0;
        const std::string size_text = "bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end);
        if (entry.begin > entry.end || entry.end > data_size) {
            fail(name, "data within the file's " + std::to_string(data_size) + " bytes of data", size_text);
        }
        if ((overflow && !empty) || total_bits % 8 != 0 || total_bits / 8 != entry.end - entry.begin) {
            fail(name, "data that fills " + entry.dtype + " of shape " + to_string(entry.shape), size_text);
        }
        ordered.emplace_back(&name, &entry);
    }
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
    });
    std::size_t covered = 0;
    for (const auto& [name, entry] : ordered) {
        if (entry->begin != covered) {
            fail(*name, "data from byte " + std::to_string(covered) + " (no gaps, no overlaps)",
                 "byte " + std::to_string(entry->begin));
        }
        covered = entry->end;
    }
    if (covered != data_size) {
        throw FileError("safetensors", "expected " + std::to_string(covered) + " bytes of data in '" + file +
                                           "', found " + std::to_string(data_size));
    }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, std::size_t data_size, const std::string& file) {
    SafetensorsHeader header;
    Handler handler(header);
    if (!Json::sax_parse(json.begin(), json.end(), &handler)) {
        const std::string complaint =
            handler.complaint().empty() ? "expected a header in JSON, found something else" : handler.complaint();
        throw FileError("safetensors", complaint + ", in '" + file + "'");
    }
    check_layout(header, data_size, file);
    return header;
}

std::string safetensors_header_json(const SafetensorsHeader& header) {
    std::vector<std::pair<std::string, SafetensorsEntry>> ordered(header.entries.begin(), header.entries.end());
    std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second.begin, a.second.end) < std::pair(b.second.begin, b.second.end);
    });
    Json json = Json::object();
    if (!header.metadata.empty()) json["__metadata__"] = header.metadata;
    for (const auto& [name, entry] : ordered) {
        json[name] = {{"dtype", entry.dtype},
                      {"shape", std::vector<std::int64_t>(entry.shape.begin(), entry.shape.end())},
                      {"data_offsets", {entry.begin, entry.end}}};
    }
    try {
        return json.dump();
    } catch (const Json::type_error&) {
        throw ValueError("safetensors", "expected names and metadata in UTF-8, found other bytes");
    }
}

}  // namespace attend::detail
