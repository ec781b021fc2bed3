#include "tokenizer/bridge.h"

namespace pagemill {

struct ChatTemplate::Impl {
  rust::Box<bridge::Template> compiled;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::compile(std::string source,
                                                                  const Tokenizer& tokenizer) {
  PM_ASSIGN(auto impl, call_bridge([&] {
              return std::unique_ptr<Impl>(
                  new Impl{bridge::compile_template(as_bytes(source), *tokenizer.impl_->rust)});
            }));
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

Result<std::string> ChatTemplate::render(const std::string& context_json) const {
  return call_bridge([&] {
    return std::string(bridge::render_template(*impl_->compiled, as_bytes(context_json)));
  });
}

}  // namespace pagemill
