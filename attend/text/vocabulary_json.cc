#include <attend/core/error.h>
#include <attend/text/vocabulary.h>

#include <nlohmann/json.hpp>

namespace attend::text {

namespace {

using Json = nlohmann::json;

/// Takes {"word": index, ...} and stops at anything else.
class Handler : public nlohmann::json_sax<Json> {
public:
    std::vector<std::pair<std::string, std::int64_t>> words;
    std::string found;  // what stood where it should not

    bool null() override { return unexpected("null"); }
    bool boolean(bool) override { return unexpected("a boolean"); }
    bool number_float(number_float_t, const string_t& text) override { return unexpected("the number " + text); }
    bool string(string_t&) override { return unexpected("a string"); }
    bool binary(binary_t&) override { return unexpected("binary data"); }
    bool number_integer(number_integer_t value) override { return unexpected("the number " + std::to_string(value)); }

    bool number_unsigned(number_unsigned_t value) override {
        if (!inside_ || value > static_cast<number_unsigned_t>(INT64_MAX)) {
            return unexpected("the number " + std::to_string(value));
        }
        words.back().second = static_cast<std::int64_t>(value);
        return true;
    }
    bool start_object(std::size_t) override {
        if (inside_) return unexpected("an object");
        inside_ = true;
        return true;
    }
    bool end_object() override { return true; }
    bool key(string_t& word) override {
        words.emplace_back(word, 0);
        return true;
    }
    bool start_array(std::size_t) override { return unexpected("an array"); }
    bool end_array() override { return true; }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
        if (found.empty()) found = "an error at byte " + std::to_string(position);
        return false;
    }

private:
    bool unexpected(const std::string& what) {
        found = words.empty() ? what : what + " for '" + words.back().first + "'";
        return false;
    }

    bool inside_ = false;
};

}  // namespace

Vocabulary Vocabulary::from_json(std::string_view json, const std::string& name) {
    Handler handler;
    if (!Json::sax_parse(json.begin(), json.end(), &handler)) {
        throw FileError("vocabulary",
                        "expected a JSON object of words and their indices (whole numbers of at least 0) in '" + name +
                            "', found " + handler.found);
    }
    try {
        return Vocabulary(handler.words);
    } catch (const ValueError& error) {
        throw FileError("vocabulary", error.detail() + ", in '" + name + "'");
    }
}

}  // namespace attend::text
