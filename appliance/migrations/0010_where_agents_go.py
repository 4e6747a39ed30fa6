from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0009_node_power"),
    ]

    operations = []
