"""Models whose configuration is the arguments of their constructors, so that no list repeats it."""

import inspect

import keras


class Configured(keras.Model):
    """Base of models that are saved and loaded with the arguments of their constructors.

    A constructor's parameters without a default are networks, those with one are settings; each is
    kept as an attribute of its name. The constructor of a subclass has its own parameters and
    passes on the rest as `**kwargs`.
    """

    refused = ()  # inherited settings that a class does not accept

    @classmethod
    def arguments(cls) -> dict:
        """Arguments of all inherited constructors, except those that this class refuses.

        Returns:
            Dictionary of names to defaults.
        """
        return {name: each for name, each in cls._defaults().items() if name not in cls.refused}

    @classmethod
    def _parameters(cls):
        """Named parameters of all constructors between `Configured` and this class."""
        found = {}
        for kind in reversed(cls.__mro__):
            if issubclass(kind, Configured) and kind is not Configured:
                found |= inspect.signature(kind.__init__).parameters
        named = (each for each in found.values() if each.kind is each.POSITIONAL_OR_KEYWORD)
        return [each for each in named if each.name != "self"]

    @classmethod
    def _defaults(cls):
        return {
            each.name: each.default for each in cls._parameters() if each.default is not each.empty
        }

    @classmethod
    def _networks(cls):
        """Names of the class's networks: the parameters without a default."""
        return [each.name for each in cls._parameters() if each.default is each.empty]

    def _refuse(self):
        """Raises an error if a refused argument was given; called at the end of a constructor."""
        for name in self.refused:
            value, default = getattr(self, name), self._defaults()[name]
            if value != default:
                raise ValueError(
                    f"{name} = {value!r} is not available for {type(self).__name__}; leave it at "
                    f"{default!r}"
                )

    def get_config(self):
        config = {name: getattr(self, name) for name in (*self.arguments(), "name")}
        for name in self._networks():
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config):
        networks = {
            name: keras.saving.deserialize_keras_object(config[name]) for name in cls._networks()
        }
        return cls(**config | networks)


def one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} = {value!r} is not valid; allowed: {', '.join(allowed)}")
